defmodule Mlx.Weights.ProgressTest do
  use ExUnit.Case, async: true
  import ExUnit.CaptureIO
  alias Mlx.Weights.Progress

  test "a bar fills and ends its line" do
    report = Progress.reporter(true, 4_000_000)
    assert capture_io(:stderr, fn -> report.(0, 4_000_000) end) =~ "\r░░░"
    half = capture_io(:stderr, fn -> report.(2_000_000, 4_000_000) end)
    assert half =~ "█░" and half =~ " 50 % of 4.0 MB"
    refute half =~ "\n"
    full = capture_io(:stderr, fn -> report.(4_000_000, 4_000_000) end)
    refute full =~ "░"
    assert String.ends_with?(full, "100 % of 4.0 MB\n")
    assert capture_io(:stderr, fn -> report.(0, 0) end) =~ "100 %"
    assert capture_io(:stderr, fn -> report.(1, 5_100_000_000) end) =~ "5.1 GB"
  end

  test "nothing is shown to nobody, or of what is there at once" do
    for choice <- [false, :auto] do
      assert capture_io(:stderr, fn -> Progress.reporter(choice, 10).(5, 10) end) == ""
    end
  end

  test "functions are called, other things are refused" do
    assert Progress.reporter(fn done, total -> {done, total} end, 7).(1, 7) == {1, 7}
    assert_raise ArgumentError, fn -> Progress.reporter(:loud, 7) end
    assert_raise ArgumentError, fn -> Progress.reporter(fn _ -> :ok end, 7) end
  end
end
