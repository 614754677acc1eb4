"""What a release says of the packages in its images."""
