"""The words of Transom as types: what travels between columns, over HTTP and into records."""
