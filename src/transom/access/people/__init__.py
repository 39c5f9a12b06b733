"""Who somebody is, who acts, and how they are reached."""
