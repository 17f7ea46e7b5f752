//! The documentation as an operator uses it: the commands on the pages, their screens, alarms and evidence. Runs the
//! program on a terminal against both stand-ins.

mod drills;
mod evidence;
mod pages;
mod screens;
