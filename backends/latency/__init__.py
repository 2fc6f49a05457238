"""How long a program takes, predicted from tables of its operators that are measured where it will run."""
