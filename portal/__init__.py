"""The portal: every API, the login page, the admin pages and the dispatcher of Atelier."""
