"""What is kept of answers, and how it is proven: records, log, replays, calibrations, challenges."""
