"""What happened: one durable record of every answer."""
