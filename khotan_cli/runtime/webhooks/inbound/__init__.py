"""Inbound: is an event kept?"""
