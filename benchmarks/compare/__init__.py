"""`make compare`: DVC experiments that differ in parameters, each with several seeds, in one table and one picture."""
