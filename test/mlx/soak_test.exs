defmodule Mlx.SoakTest do
  @moduledoc """
  Long runs, each in a VM of its own: after a run of a kind, what MLX holds is what it was
  before, and the memory of the VM has not grown.

      SOAK_SECONDS=600 mix test --only soak

  runs each kind for so many seconds, 60 if nothing is said.
  """

  use ExUnit.Case, async: false
  import Mlx.OwnVm

  @moduletag :soak
  @moduletag timeout: :infinity

  @seconds System.get_env("SOAK_SECONDS", "60") |> String.to_integer()

  # Memory that the allocators of the VM and of the C library may need meanwhile.
  @slack 48

  @start """
  Nx.default_backend(Mlx.Backend)

  defmodule Soak do
    def run(name, slack, round) do
      warm_up = seconds() |> div(5) |> max(3)
      first = rounds(round, 0, now() + warm_up)
      before = settled()
      rounds = rounds(round, first, now() + seconds())
      later = settled()
      grown = later.resident - before.resident
      IO.puts("SOAK \#{name}: \#{rounds - first} rounds in \#{seconds()} s, active \#{before.active} to " <>
        "\#{later.active} bytes, resident \#{before.resident} to \#{later.resident} MiB, " <>
        "threads \#{before.threads} to \#{later.threads}")
      true = later.active == before.active
      true = grown <= slack
      # As many streams as were held at once, and those that were not done when others began.
      true = later.threads <= before.threads + 16
    end

    defp seconds, do: System.fetch_env!("SOAK") |> String.to_integer()
    defp now, do: System.monotonic_time(:second)

    defp rounds(round, at, until) do
      round.(at)
      if now() < until, do: rounds(round, at + 1, until), else: at + 1
    end

    defp settled do
      # Programs that are kept for the next call hold constants.
      Mlx.Compiler.clear_cache()
      for _ <- 1..2, pid <- Process.list(), do: :erlang.garbage_collect(pid)
      Mlx.synchronize()
      Mlx.Memory.clear_cache()
      Process.sleep(300)
      {printed, 0} = System.cmd("ps", ~w(-o rss=,nlwp= -p \#{System.pid()}))
      [resident, threads] = printed |> String.split() |> Enum.map(&String.to_integer/1)
      %{resident: div(resident, 1024), threads: threads, active: Mlx.Memory.stats().active}
    end
  end
  """

  defp assert_flat(name, code, slack \\ @slack) do
    System.put_env("SOAK", Integer.to_string(@seconds))
    {output, status} = run(@start <> code <> "\nSoak.run(\"#{name}\", #{slack}, round)\n")
    for line <- String.split(output, "\n"), line =~ "SOAK", do: IO.puts(line)
    assert status == 0, output
  end

  test "eager operations" do
    assert_flat("eager operations", """
    round = fn at ->
      x = Nx.iota({rem(at, 400) + 1, 512}, type: :f32)
      y = x |> Nx.multiply(0.5) |> Nx.add(1) |> Nx.dot(Nx.transpose(x)) |> Nx.sum(axes: [0])
      y |> Nx.sort() |> Nx.argmax() |> Nx.to_number()
      Nx.to_binary(Nx.window_sum(Nx.as_type(x, :f16), {1, 3}))
      try do Nx.to_number(Nx.sum(Nx.iota({1_000_000, 1_000_000}))) rescue Mlx.Error -> :refused end
    end
    """)
  end

  test "compiled calls" do
    assert_flat("compiled calls", """
    defmodule Loop do
      import Nx.Defn
      defn run(x) do
        {_, y} = while {i = 0, x}, i < 5, do: {i + 1, Nx.sin(x) * 0.9}
        if Nx.sum(y) > 0, do: Nx.cumulative_sum(y), else: -y
      end
    end
    step = Nx.Defn.jit(&Loop.run/1, compiler: Mlx.Compiler)
    round = fn at ->
      x = Nx.iota({64, 256}, type: :f32)
      Enum.reduce(1..50, x, fn _, x -> step.(x) end) |> Nx.to_binary()
      # Anew, so that programs are made.
      once = Nx.Defn.jit(fn x -> Nx.add(x, Nx.tensor(at)) end, compiler: Mlx.Compiler)
      Nx.to_binary(once.(x))
    end
    """)
  end

  test "training" do
    assert_flat("training", """
    defmodule Net do
      import Nx.Defn
      defn predict({w1, w2}, x), do: x |> Nx.dot(w1) |> Nx.tanh() |> Nx.dot(w2)
      defn loss(params, x, y), do: Nx.mean((predict(params, x) - y) ** 2)
      defn step({w1, w2} = params, x, y) do
        {loss, {g1, g2}} = value_and_grad(params, &loss(&1, x, y))
        {loss, {w1 - 0.01 * g1, w2 - 0.01 * g2}}
      end
    end
    step = Nx.Defn.jit(&Net.step/3, compiler: Mlx.Compiler)
    key = Nx.Random.key(1)
    round = fn at ->
      {x, key} = Nx.Random.normal(key, shape: {64, 128})
      {w1, key} = Nx.Random.normal(key, 0.0, 0.05, shape: {128, 256})
      {w2, _} = Nx.Random.normal(key, 0.0, 0.05, shape: {256, 1})
      y = Nx.sum(x, axes: [1], keep_axes: true)
      {losses, _} = Enum.map_reduce(1..20, {w1, w2}, fn _, params -> step.(params, x, y) end)
      true = Nx.to_number(List.last(losses)) < Nx.to_number(hd(losses))
      if rem(at, 10) == 0, do: Net.step({w1, w2}, x, y) |> Mlx.eval()
    end
    """)
  end

  test "streams that come and go" do
    assert_flat("streams", """
    weights = Mlx.eval(Nx.iota({256, 256}, type: :f32))
    fun = &Nx.dot(Nx.add(&1, 1), &2)
    round = fn _ ->
      1..4
      |> Task.async_stream(fn at ->
        stream = Mlx.Stream.new()
        run = Nx.Defn.jit(fun, compiler: Mlx.Compiler, stream: stream)
        run.(Nx.broadcast(Nx.tensor(at, backend: Mlx.Backend), {8, 256}), weights) |> Nx.to_binary()
      end, max_concurrency: 4, timeout: :infinity)
      |> Enum.each(fn {:ok, bytes} -> 8192 = byte_size(bytes) end)
    end
    """)
  end

  test "owners that are killed" do
    assert_flat("killed owners", """
    m = Mlx.eval(Nx.broadcast(0.001, {300, 300}) |> Nx.add(0.0))
    step = Nx.Defn.jit(&Nx.dot/2, compiler: Mlx.Compiler)
    round = fn at ->
      pids = for kind <- [:eager, :compiled, :binary] do
        spawn(fn ->
          Nx.default_backend(Mlx.Backend)
          case kind do
            :eager -> Nx.to_binary(Enum.reduce(1..20, m, fn _, x -> Nx.dot(x, m) end))
            :compiled -> Nx.to_binary(Enum.reduce(1..20, m, fn _, x -> step.(x, m) end))
            :binary -> for _ <- 1..50, do: Nx.from_binary(:binary.copy(<<1>>, 6_000_000), :u8)
          end
        end)
      end
      Process.sleep(rem(at, 7))
      Enum.each(pids, &Process.exit(&1, :kill))
    end
    """)
  end
end
