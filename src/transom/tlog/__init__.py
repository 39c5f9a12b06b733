"""The public log: its tree, its files and its signatures, as other people's tools read them."""
