"""Diagnosis of a machine: back ends found, back ends broken, what to install."""
