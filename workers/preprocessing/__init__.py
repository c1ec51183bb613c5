"""What ControlNets are shown: pictures made into maps of their edges, colours or tiles, on the CPU."""
