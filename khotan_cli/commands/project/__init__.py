"""Commands of a project as a whole: init, migrate, doctor, dev, worker, demo."""
