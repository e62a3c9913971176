"""What an experiment brings: its readers, steps and calibrations, one experiment a file."""
