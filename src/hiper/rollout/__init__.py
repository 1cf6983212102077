"""The playing of many episodes at once by language models, experts or people."""
