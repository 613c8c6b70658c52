"""Energies to maps to figures."""
