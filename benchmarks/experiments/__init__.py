"""Experiments that train networks, a folder each.

The modules beside the folders are shared by several of them.
"""
