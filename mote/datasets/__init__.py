"""
Where videos and labels come from: folders, lists, the publishers' own lists.

Start with dataset.py, which opens a dataset by its name. Needs no torch. Not part of the paper.
"""
