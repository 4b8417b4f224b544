"""The product from outside: real daemon, real llama.cpp, real command line."""
