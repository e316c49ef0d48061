"""Pictures: accuracy against parameters from tables, and what State Space Prompting attends to."""
