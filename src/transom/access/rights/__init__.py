"""What is kept for whom it is about: the trail, suspensions, terms, and all of it to take along."""
