defmodule Mlx.CompilerSurvivalTest do
  use ExUnit.Case, async: true

  import Mlx.AtOnce

  # `growth` gives by how many bytes the VM, and what MLX holds, have grown while a
  # function ran many times, after it had run often enough to have all that it needs.
  @start """
  defmodule Soak do
    def jit(fun), do: Nx.Defn.jit(fun, compiler: Mlx.Compiler)

    def growth(warm_up, times, fun) do
      fun.(warm_up)
      {resident, arrays} = held()
      fun.(times)
      {more_resident, more_arrays} = held()
      IO.inspect({more_resident - resident, more_arrays - arrays})
    end

    def held do
      for _ <- 1..2, pid <- Process.list(), do: :erlang.garbage_collect(pid)
      # What was let go of is freed in the background.
      Task.await(Task.async(fn -> Nx.to_number(Nx.tensor(0, backend: Mlx.Backend)) end), :infinity)
      Process.sleep(100)
      {printed, 0} = System.cmd("ps", ~w(-o rss= -p \#{System.pid()}))
      {String.to_integer(String.trim(printed)) * 1024, Mlx.Memory.stats().active}
    end

    # A function that is not like any other.
    def adder(at) do
      table = Nx.broadcast(at, {1024}) |> Nx.backend_copy(Nx.BinaryBackend)
      fn x -> Nx.add(x, table) end
    end
  end

  x = Nx.iota({64}, type: :f32)
  """

  # In a VM of its own nobody else takes memory.
  defp assert_flat(code), do: Mlx.OwnVm.assert_alive(@start <> code)

  # Less than 170 bytes a call, which no leak of a result or of an argument is.
  test "100,000 calls, each with the result of the one before" do
    assert_flat("""
    step = Soak.jit(fn x -> x |> Nx.multiply(0.5) |> Nx.add(1) |> Nx.sin() end)

    {resident, arrays} = Soak.growth(10_000, 100_000, fn times ->
      Enum.reduce(1..times, x, fn at, x ->
        x = step.(x)
        if rem(at, 1000) == 0, do: Nx.to_binary(x)
        x
      end)
    end)

    true = resident < 16 * 1024 * 1024
    0 = arrays
    """)
  end

  test "results that nobody reads, and tensors of the host" do
    assert_flat("""
    step = Soak.jit(fn x, y -> {Nx.add(x, y), Nx.dot(x, y)} end)
    y = Nx.backend_copy(x, Nx.BinaryBackend)

    {resident, arrays} = Soak.growth(5_000, 20_000, fn times ->
      Enum.each(1..times, fn _ -> step.(x, y) end)
    end)

    true = resident < 16 * 1024 * 1024
    0 = arrays
    """)
  end

  test "branches, loops and functions of the host" do
    assert_flat("""
    defmodule Flow do
      import Nx.Defn

      defn run(x) do
        {x, _} = while {x, i = 0}, i < 3, do: {Nx.sin(x) + i, i + 1}
        x = while x, Nx.sum(x) > 20, do: x * 0.5
        x = if Nx.sum(x) > 10, do: x * 2, else: x + 1
        if x[0] > 1, do: io_call(x, fn _ -> :ok end), else: x - 1
      end
    end

    step = Soak.jit(&Flow.run/1)

    {resident, arrays} = Soak.growth(1_000, 5_000, fn times ->
      Enum.reduce(1..times, x, fn _, x -> step.(x) end)
    end)

    true = resident < 16 * 1024 * 1024
    0 = arrays
    """)
  end

  test "more functions than are kept" do
    assert_flat("""
    x = Nx.iota({1024}, type: :f32)
    {_, before} = Soak.held()
    %{limit: limit} = Mlx.Compiler.cache_info()

    {resident, arrays} = Soak.growth(limit + 200, 3_000, fn times ->
      Enum.each(1..times, fn at -> Soak.jit(Soak.adder(at + times)).(x) end)
    end)

    true = resident < 32 * 1024 * 1024
    true = abs(arrays) <= limit * 1024 * 4
    true = Mlx.Compiler.cache_info().entries <= limit

    Mlx.Compiler.clear_cache()
    {_, ^before} = Soak.held()
    """)
  end

  describe "a function that many call at once" do
    setup do
      test = self()
      name = "#{inspect(test)}"
      :telemetry.attach(name, [:mlx, :compile, :stop], &__MODULE__.forward/4, test)
      on_exit(fn -> :telemetry.detach(name) end)
    end

    def forward(_event, _measured, %{function: fun}, test), do: send(test, {:compiled, fun})

    defp jit(fun), do: Nx.Defn.jit(fun, compiler: Mlx.Compiler)

    defp compilations(fun) do
      receive do
        {:compiled, ^fun} -> 1 + compilations(fun)
      after
        0 -> 0
      end
    end

    test "is compiled once by 1,000 processes" do
      # New, because it has captured this.
      unique = System.unique_integer([:positive])
      fun = fn x -> x |> Nx.multiply(2) |> Nx.add(rem(unique, 7)) end

      got = at_once(1000, fn at -> Nx.to_number(jit(fun).(at)) end)
      assert got == for(at <- 1..1000, do: 2 * at + rem(unique, 7))
      assert compilations(fun) == 1
    end

    test "is compiled once for each type and shape" do
      unique = System.unique_integer([:positive])
      fun = fn x -> Nx.sum(Nx.add(x, rem(unique, 7))) end

      got =
        at_once(400, fn at ->
          Nx.to_number(jit(fun).(Nx.broadcast(Nx.tensor(at, type: :s64), {rem(at, 4) + 1})))
        end)

      assert got == for(at <- 1..400, do: (rem(at, 4) + 1) * (at + rem(unique, 7)))
      assert compilations(fun) == 4
    end

    test "is compiled by another if the first is killed" do
      test = self()
      first = :counters.new(1, [])

      fun = fn x ->
        if :counters.get(first, 1) == 0 do
          :counters.add(first, 1, 1)
          send(test, {:compiling, self()})
          Process.sleep(:infinity)
        end

        Nx.add(x, 1)
      end

      pid = spawn(fn -> jit(fun).(1) end)
      assert_receive {:compiling, ^pid}
      tasks = for at <- 1..50, do: Task.async(fn -> Nx.to_number(jit(fun).(at)) end)
      Process.sleep(20)
      Process.exit(pid, :kill)
      assert Task.await_many(tasks, :infinity) == Enum.to_list(2..51)
      assert compilations(fun) == 1
    end

    test "raises in each if it can't be compiled" do
      unique = System.unique_integer([:positive])
      fun = fn _x -> raise "not today, #{unique}" end

      assert at_once(50, fn at ->
               try do
                 jit(fun).(at)
               rescue
                 error -> Exception.message(error)
               end
             end) == List.duplicate("not today, #{unique}", 50)
    end
  end
end
