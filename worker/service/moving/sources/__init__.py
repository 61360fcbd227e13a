"""Accounts as other products store them: one module for each, which turns a row into the fields of an import."""
