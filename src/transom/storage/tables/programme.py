"""The programme: members, applications, grants, terms and the trail."""
