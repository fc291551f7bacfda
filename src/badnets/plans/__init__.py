"""Catalogue of plans: functions that choose which parts to combine."""
