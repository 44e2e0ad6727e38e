"""Small trainings that show entropy collapse and what prevents it; run by `interp entropy train CONFIG`."""
