"""The calibrations, one a file."""
