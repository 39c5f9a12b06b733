"""What is offered, applied for, granted and used up."""
