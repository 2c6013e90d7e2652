"""Verification: is a request genuine?"""
