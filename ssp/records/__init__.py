"""What runs leave behind, checked on the way in and out: records, choices, predictions. Without torch."""
