"""For core.schedule.fleet_file, until it asks core.fault_lines."""

from core.fault_lines import fault_lines as fault_lines
