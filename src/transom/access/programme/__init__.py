"""What is offered, what is asked for, who decides, and what is granted."""
