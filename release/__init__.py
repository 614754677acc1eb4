"""What a release is made with: results, licences, dashboards, the documentation's site."""
