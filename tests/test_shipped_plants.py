"""The plants of the shipped cells: what flows in is there or has left, heat goes where it must, commands are states."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.plants.bottling import DONE, FAILED, IDLE, RUNNING
from hil.plants.cleaning import CipSkid
from hil.plants.palletising import ABORTED, COMPLETE, EXECUTE, HELD, PACKML_IDLE, STOPPED, Infeed, PackMl, Palletiser
from hil.plants.reaction import Reactor, Thermostat

DT_S = 0.05


def run(block, seconds, dt_s=DT_S):
    for _ in range(round(seconds / dt_s)):
        block.step(dt_s)


# --- CIP skid --------------------------------------------------------------------------------------------------------


def test_a_medium_comes_back_late_and_smeared():
    skid = CipSkid(route_a_percent=100, caustic=True, flow_setpoint_m3_per_h=18, return_pump=True, to_drain=True)
    run(skid, 2)
    assert skid.return_conductivity_ms_per_cm < 10
    run(skid, 30)
    assert skid.return_conductivity_ms_per_cm == pytest.approx(90, abs=1)
    assert skid.return_flow_m3_per_h == pytest.approx(18, rel=0.02)


@pytest.mark.parametrize("missing", ["route", "valve", "medium"])
def test_nothing_flows_without_a_way_a_valve_and_something_to_pump(missing):
    skid = CipSkid(flow_setpoint_m3_per_h=20, start_level_l=0 if missing == "medium" else 400)
    skid.route_b_percent = 0 if missing == "route" else 100
    skid.acid = missing != "valve"
    run(skid, 5)
    assert skid.flow_m3_per_h == 0


def test_the_heater_reaches_what_its_power_allows():
    skid = CipSkid(
        route_a_percent=100, water=True, flow_setpoint_m3_per_h=18, temperature_setpoint_c=90, heater_kw=418.6
    )
    run(skid, 60)
    assert skid.supply_temperature_c == pytest.approx(15 + 418.6 / (4.186 * 5), abs=0.5)
    skid.temperature_setpoint_c = 30
    run(skid, 60)
    assert skid.supply_temperature_c == pytest.approx(30, abs=0.1)


def test_what_the_return_pump_does_not_bring_back_stands_in_the_tank():
    skid = CipSkid(route_a_percent=100, water=True, flow_setpoint_m3_per_h=18)
    run(skid, 10)
    assert 40 < skid.pool_l <= 50
    skid.flow_setpoint_m3_per_h, skid.return_pump, skid.to_drain = 0, True, True
    run(skid, 20)
    assert (skid.pool_l, round(skid.return_flow_m3_per_h, 3)) == (0, 0)


names = ["water", "recovered", "caustic", "acid", "to_drain", "to_recovered", "to_caustic", "to_acid", "return_pump"]


@given(st.lists(st.tuples(st.sets(st.sampled_from(names)), st.floats(0, 40), st.floats(0.01, 5)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_skid_stays_within_what_is_possible(steps):
    skid = CipSkid(route_a_percent=100)
    for opened, flow, dt_s in steps:
        for name in names:
            setattr(skid, name, name in opened)
        skid.flow_setpoint_m3_per_h = flow
        skid.step(dt_s)
        assert 0 <= skid.flow_m3_per_h <= skid.most_flow_m3_per_h
        assert 0.4 - 1e-9 <= skid.return_conductivity_ms_per_cm <= 90 + 1e-9
        for tank in skid.tanks.values():
            assert 0 <= tank.volume_l <= skid.tank_volume_l


# --- reactor ---------------------------------------------------------------------------------------------------------


def charged(**more):
    reactor = Reactor(solvent=True, a=True, agitator_rpm=120, **more)
    run(reactor, 4)
    reactor.solvent = reactor.a = False
    return reactor


def test_a_reactor_weighs_what_was_charged_and_not_yet_discharged():
    reactor = charged()
    assert reactor.weight_kg == pytest.approx(40)
    reactor.discharge = True
    run(reactor, 3)
    assert reactor.weight_kg == pytest.approx(16)
    run(reactor, 5)
    assert (reactor.weight_kg, reactor.dosed_kg) == (0, 0)


def test_a_full_reactor_takes_no_more():
    reactor = Reactor(solvent=True, dosing_kg_per_s=5)
    run(reactor, 60)
    assert reactor.weight_kg == pytest.approx(100)


def test_a_reaction_gives_its_heat_once():
    reactor = charged(heat_transfer_kw_per_k=0, feed_c=60)
    reactor.dosing_kg_per_s = 1
    run(reactor, 4)
    reactor.dosing_kg_per_s = 0
    run(reactor, 300)
    assert reactor.conversion_percent == pytest.approx(100, abs=1)
    mixed_c = 60 + 4 * 400 / (4.0 * 44)
    assert reactor.temperature_c == pytest.approx(mixed_c, abs=1.5)  # some of B came after heat had been made


def test_what_is_dosed_cold_waits_and_reacts_when_it_is_heated():
    reactor = charged(feed_c=0, jacket_c=0, heat_transfer_kw_per_k=10)
    reactor.dosing_kg_per_s = 2
    run(reactor, 2)
    reactor.dosing_kg_per_s = 0
    assert reactor.unreacted_kg > 3.5
    other = charged(feed_c=0, jacket_c=0, heat_transfer_kw_per_k=10)
    reactor.jacket_c = other.jacket_c = 60
    run(reactor, 20)
    run(other, 20)
    assert reactor.temperature_c > other.temperature_c + 3
    assert reactor.unreacted_kg < 1


def test_without_stirring_heat_passes_badly():
    stirred, still = charged(), charged()
    still.agitator_rpm = 0
    run(still, 10)
    stirred.jacket_c = still.jacket_c = 80
    run(stirred, 4)
    run(still, 4)
    assert stirred.temperature_c > 55 > 35 > still.temperature_c


def test_quench_water_cools():
    reactor = charged(feed_c=20, jacket_c=90)
    run(reactor, 30)
    hot_c = reactor.temperature_c
    reactor.quench, reactor.jacket_c = True, 20
    run(reactor, 3)
    assert reactor.temperature_c < hot_c - 25


def test_a_thermostat_follows_its_setpoint_no_faster_than_it_can():
    thermostat = Thermostat(on=True, setpoint_c=80, heating_k_per_s=2)
    run(thermostat, 10)
    assert thermostat.jacket_c == pytest.approx(40)
    run(thermostat, 40)
    assert thermostat.jacket_c == pytest.approx(80, abs=0.1)
    thermostat.on = False
    run(thermostat, 600)
    assert 20 < thermostat.jacket_c < 30


# --- palletising -----------------------------------------------------------------------------------------------------


def test_cases_queue_at_the_stop():
    infeed = Infeed(spacing_mm=600, case_length_mm=400, speed_mm_per_s=300)
    run(infeed, 2.1)
    assert (infeed.case, infeed.arrived) == (True, 1)
    run(infeed, 5)
    infeed.taken = 1
    infeed.step(DT_S)
    assert not infeed.case
    run(infeed, 1.4)
    assert (infeed.case, infeed.arrived) == (True, 2)


def test_no_more_cases_come_than_there_are():
    infeed = Infeed(speed_mm_per_s=500, supply=2)
    for taken in range(5):
        infeed.taken = taken
        run(infeed, 5)
    assert (infeed.case, infeed.arrived) == (False, 2)


def palletiser():
    arm = Palletiser(jobs_s={1: 0.5, 2: 1.0, 3: 1.0, 4: 0.5}, dispense=True, case=True)
    run(arm, 2)
    assert arm.pallet
    arm.dispense = False
    return arm


def job(arm, number, seconds=1.5, **more):
    for name, value in {"layer": 0, "place": 0, **more}.items():
        setattr(arm, name, value)
    arm.job = number
    run(arm, seconds)
    state = arm.state
    arm.job, arm.layer, arm.place = 0, 0, 0
    arm.step(DT_S)
    assert arm.state == IDLE
    return state


def test_a_case_goes_from_the_stop_to_its_place():
    arm = palletiser()
    assert job(arm, 1) == DONE
    arm.suction = True
    run(arm, 1)
    assert arm.holding
    assert arm.vacuum_kpa < -60
    assert job(arm, 2, layer=2, place=3) == DONE
    assert (arm.taken, arm.placed) == (1, 0)
    arm.suction = False
    run(arm, 1)
    assert (arm.holding, arm.placed, arm.height_mm) == (False, 1, 500)


def test_without_a_case_there_is_hardly_a_vacuum():
    arm = palletiser()
    arm.case, arm.suction = False, True
    job(arm, 1)
    run(arm, 1)
    assert (arm.holding, round(arm.vacuum_kpa)) == (False, -8)
    assert job(arm, 2, layer=1, place=1) == FAILED


def test_a_case_whose_vacuum_goes_on_the_way_falls_down():
    arm = palletiser()
    job(arm, 1)
    arm.suction = True
    run(arm, 1)
    arm.job, arm.layer, arm.place = 2, 1, 1
    run(arm, 0.3)
    assert arm.state == RUNNING
    arm.suction = False
    run(arm, 2)
    assert (arm.dropped, arm.placed) == (1, 0)


@pytest.mark.parametrize(("layer", "place"), [(0, 1), (1, 0), (7, 1), (1, 7)])
def test_a_place_out_of_reach_fails(layer, place):
    arm = palletiser()
    job(arm, 1)
    arm.suction = True
    run(arm, 1)
    assert job(arm, 2, layer=layer, place=place) == FAILED


def test_a_pallet_goes_when_it_is_asked_for_long_enough_and_takes_its_cases_along():
    arm = palletiser()
    arm.stack[1, 1] = True
    arm.discharge = True
    run(arm, 1)
    assert arm.pallet
    arm.discharge = False
    run(arm, 1)
    arm.discharge = True
    run(arm, 1.6)
    assert (arm.pallet, arm.placed, arm.pallets) == (False, 0, 1)


def command(machine, number, seconds=0.0):
    machine.command, machine.request = number, True
    machine.step(DT_S)
    machine.request = False
    run(machine, seconds)
    return machine.state


def test_a_packml_machine_takes_its_commands_where_its_state_does():
    machine = PackMl(execute_s=2.0, acting_s=0.2)
    assert command(machine, 2, 1) == STOPPED  # not before it was reset
    assert command(machine, 1, 0.5) == PACKML_IDLE
    assert command(machine, 2, 0.5) == EXECUTE
    assert command(machine, 4, 5) == HELD
    assert command(machine, 5, 0.3) == EXECUTE
    run(machine, 3)
    assert (machine.state, machine.cycles) == (COMPLETE, 1)
    assert command(machine, 8, 0.5) == ABORTED
    assert command(machine, 1, 0.5) == ABORTED
    assert command(machine, 9, 0.5) == STOPPED


def test_a_request_that_stays_is_one_command():
    machine = PackMl(execute_s=0.5, acting_s=0.1, command=1, request=True)
    run(machine, 1)
    machine.command = 2
    run(machine, 5)
    assert machine.state == PACKML_IDLE
