"""Handling: what is done with an event?"""
