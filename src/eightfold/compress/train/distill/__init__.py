"""Knowledge distillation: a student network learns from a teacher's outputs and features."""
