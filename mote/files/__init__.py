"""What people's files need: video containers, weight files. Not part of the paper."""
