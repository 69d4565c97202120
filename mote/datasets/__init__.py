"""Where videos and labels come from: folders, lists, the publishers' own lists. Needs no torch. Not part of the paper."""
