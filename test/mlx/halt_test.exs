defmodule Mlx.HaltTest do
  # Each case ends a VM of its own, with work in flight that takes minutes, on a GPU seconds.
  use ExUnit.Case, async: true
  import Mlx.OwnVm, only: [run: 1, command: 1]

  @moduletag timeout: 300_000

  # Far more than halting takes, and far less than the work.
  @soon 60

  # One evaluation of many products, which nothing interrupts.
  @long_evaluation """
  m = Nx.eye(if Mlx.Device.default() == :gpu, do: 6000, else: 1500) |> Nx.as_type(:f32)
  x = Enum.reduce(1..30, m, fn _, x -> Nx.dot(x, m) end)
  spawn(fn -> Nx.to_binary(Enum.reduce(1..3000, x, fn _, x -> Nx.dot(x, m) end)) end)
  Process.sleep(500)
  """

  @endless_loop """
  defmodule Forever do
    import Nx.Defn

    defn count(x) do
      {x, _} = while {x, y = x}, y > 0, do: {x + 1, y}
      x
    end
  end

  forever = Nx.Defn.jit(&Forever.count/1, compiler: Mlx.Compiler)
  spawn(fn -> Nx.to_number(forever.(1)) end)
  Process.sleep(500)
  """

  for {name, work} <- [evaluation: @long_evaluation, loop: @endless_loop] do
    describe "with a long #{name} in flight" do
      @work work

      test "System.halt ends with status 0" do
        assert ends(@work <> "System.halt(0)") == 0
      end

      test "System.halt gives its status" do
        assert ends(@work <> "System.halt(3)") == 3
      end

      test "System.stop ends with its status" do
        assert ends(@work <> "System.stop(4); Process.sleep(:infinity)") == 4
      end

      test "SIGTERM ends with status 0" do
        assert terminated(@work) == 0
      end
    end
  end

  test "several streams at work end as one does" do
    status =
      ends("""
      m = Nx.eye(if Mlx.Device.default() == :gpu, do: 6000, else: 1000) |> Nx.as_type(:f32)
      for _ <- 1..4 do
        stream = Mlx.Stream.new()
        work = fn m -> Enum.reduce(1..3000, m, fn _, x -> Nx.dot(x, m) end) end
        Mlx.async_eval(Nx.Defn.jit_apply(work, [m], compiler: Mlx.Compiler, stream: stream))
      end
      Process.sleep(500)
      System.halt(5)
      """)

    assert status == 5
  end

  defp ends(code) do
    began = System.monotonic_time(:second)
    {output, status} = run(code)
    assert System.monotonic_time(:second) - began < @soon, output
    refute output =~ "terminate called"
    status
  end

  # The VM says when it is at work, and is sent the signal then.
  defp terminated(code) do
    {executable, args} =
      command(code <> "IO.puts(\"pid \#{System.pid()}\"); Process.sleep(:infinity)")

    port =
      Port.open({:spawn_executable, executable}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        args: args
      ])

    pid = await_pid(port, "")
    began = System.monotonic_time(:second)
    {_, 0} = System.cmd("kill", ["-TERM", pid])
    status = await_exit(port)
    assert System.monotonic_time(:second) - began < @soon
    status
  end

  defp await_pid(port, output) do
    case Regex.run(~r/pid (\d+)\n/, output) do
      [_, pid] ->
        pid

      nil ->
        receive do
          {^port, {:data, data}} -> await_pid(port, output <> data)
          {^port, {:exit_status, status}} -> flunk("ended with #{status}: #{output}")
        end
    end
  end

  defp await_exit(port) do
    receive do
      {^port, {:exit_status, status}} -> status
      {^port, {:data, _}} -> await_exit(port)
    end
  end
end
