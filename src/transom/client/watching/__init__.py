"""Whether a server still serves what it served before, told from outside, by what it answers alone."""
