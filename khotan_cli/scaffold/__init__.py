"""Writes integration code into a project: catalogue, render, plan, apply."""
