VERSION = "0.2.0"  # of the whole of Beltsight; CHANGELOG.md says what is in it
