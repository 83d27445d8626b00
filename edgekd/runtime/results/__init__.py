"""What a chain found goes out: drawn, as regions, and as files of many formats in one folder."""
