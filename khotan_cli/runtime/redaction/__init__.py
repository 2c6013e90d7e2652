"""Redaction: what must not be shown, and to whom is it not sent?"""
