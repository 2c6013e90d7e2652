"""Redaction: what must not be shown, and what is kept from other origins?"""
