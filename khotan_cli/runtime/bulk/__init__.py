"""Bulk writes: how do rows get into the user's own tables?"""
