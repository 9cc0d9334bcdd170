"""The tests: unit, contract, integration, simulation, benchmark, and the independent oracle."""
