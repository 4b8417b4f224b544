"""What starts an engine, and what can be read of a model file without one."""
