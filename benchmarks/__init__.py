"""What things cost, measured in pairs: ``make bench``. Nothing here is asserted by the tests."""
