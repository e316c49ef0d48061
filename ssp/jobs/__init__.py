"""What the rules of the workflow call: one module for each kind of job, and what they share. Light by itself."""
