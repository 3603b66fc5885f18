defmodule Mlx.ProfileTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle, only: [assert_identical: 2]
  alias Mlx.Profile
  doctest Mlx.Profile

  defmodule Functions do
    @moduledoc false
    import Nx.Defn

    defn chain(x, y), do: Nx.sum(Nx.exp(x * y) + x, axes: [0])

    defn branch(x) do
      if Nx.sum(x) > 0, do: Nx.exp(x) * 2, else: Nx.cos(x)
    end

    defn loops(x) do
      {_, x} =
        while {i = 0, x}, i < 5 do
          {i + 1, x * 1.5 + 1}
        end

      {_, x} =
        while {i = 0, x}, Nx.sum(x) < 10_000 and i < 50 do
          {i + 1, branch(x)}
        end

      x
    end

    defn hosted(x) do
      y = io_call(Nx.sin(x), &Function.identity/1)

      {_, y} =
        while {i = 0, y}, i < 3 do
          {i + 1, io_call(y + 1, &Function.identity/1) * 2}
        end

      Nx.abs(y)
    end
  end

  defp x, do: Nx.iota({4, 5}, type: :f32, backend: Mlx.Backend)
  defp profile(fun, args, opts \\ []), do: Profile.run(fun, args, opts)
  defp ops(profile), do: Enum.map(profile.instructions, & &1.op)

  # The rows of a plan as it prints them, each before those of its programs.
  defp printed(fun, args, opts \\ []) do
    program = fun |> Mlx.Compiler.program(args, opts) |> inspect()
    for [_, row] <- Regex.scan(~r/ = (\w+)[( ]/, program), row != "run", do: row
  end

  defp plain(fun, args, opts \\ []),
    do: Nx.Defn.jit_apply(fun, args, [compiler: Mlx.Compiler] ++ opts)

  defp assert_consistent(profile) do
    instructions = profile.instructions
    own = instructions |> Enum.map(& &1.own) |> Enum.sum()
    outermost = for %{path: [], time: time} <- instructions, do: time
    assert own == Enum.sum(outermost)
    assert own > 0 and own <= profile.duration
    for i <- instructions, do: assert(i.own in 0..i.time and i.calls > 0 == i.time > 0)

    calls = Enum.frequencies_by(profile.events, & &1.instruction)

    for {instruction, at} <- Enum.with_index(instructions),
        do: assert(instruction.calls == Map.get(calls, at, 0))

    for event <- profile.events, do: assert(event.start >= 0 and event.duration > 0)
    assert profile.dropped == 0
  end

  test "every instruction is there, with what it took and gave" do
    args = [x(), Nx.tensor(0.01)]
    profile = profile(&Functions.chain/2, args)
    assert ops(profile) == printed(&Functions.chain/2, args)
    assert ops(profile) == ["multiply", "exp", "add", "sum"]
    assert [multiply, _, _, sum] = profile.instructions
    assert multiply.operands == [{"f32", {4, 5}}, {"f32", {}}]
    assert {sum.results, sum.bytes, sum.calls} == {[{"f32", {5}}], 20, 1}
    assert_consistent(profile)
    assert profile.plain > 0 and profile.device == Mlx.TestDevice.device()
    assert_identical(profile.result, plain(&Functions.chain/2, args))
  end

  test "branches and loops are timed inside" do
    profile = profile(&Functions.loops/1, [x()])
    assert Enum.sort(ops(profile)) == Enum.sort(printed(&Functions.loops/1, [x()]))
    assert_consistent(profile)
    assert_identical(profile.result, plain(&Functions.loops/1, [x()]))

    calls = fn path -> for %{path: ^path} = i <- profile.instructions, do: i.calls end
    assert calls.(["repeat", "body"]) == [5, 5]
    [body | _] = calls.(["while", "body"])
    conditions = calls.(["while", "condition"])
    assert conditions != [] and Enum.all?(conditions, &(&1 == body + 1))
    assert Enum.all?(calls.(["while", "body", "cond", "on_true"]), &(&1 == body))
    assert calls.(["while", "body", "cond", "on_false"]) == [0]

    while = Enum.find(profile.instructions, &(&1.op == "while"))
    inside = for %{path: ["while", _]} = i <- profile.instructions, do: i.time
    assert while.time == while.own + Enum.sum(inside)
  end

  test "functions of the host and what they drive are timed as well" do
    test = self()
    profile = profile(&Functions.hosted/1, [x()], warm_up: 0)
    assert_consistent(profile)
    assert profile.plain == nil
    assert_identical(profile.result, plain(&Functions.hosted/1, [x()]))
    assert for(%{op: "call", path: []} = i <- profile.instructions, do: i.calls) == [1]

    inside =
      for %{op: "call", path: path} = i <- profile.instructions, path != [], do: {path, i.calls}

    assert inside == [{["while", "body"], 3}]
    assert for(%{op: "abs"} = i <- profile.instructions, do: i.calls) == [1]

    assert for(%{path: ["while", "condition"]} = i <- profile.instructions, do: i.calls)
           |> Enum.all?(&(&1 == 4))

    fun = fn x -> Nx.Defn.Kernel.io_call(x, fn _ -> send(test, :called) end) end
    profile(fun, [x()], warm_up: 3)
    for _ <- 1..4, do: assert_received(:called)
    refute_received :called
  end

  if System.find_executable("g++") || Mlx.TestDevice.device() == :gpu do
    test "fused parts are one instruction that names its own" do
      args = [x(), Nx.tensor(0.01)]
      profile = profile(&Functions.chain/2, args, fuse: true)

      assert [%{op: "fused", fused: ["multiply", "exp", "add", "sum"], calls: 1}] =
               profile.instructions

      assert_consistent(profile)
      assert_identical(profile.result, plain(&Functions.chain/2, args, fuse: true))

      assert Profile.to_table(profile) =~
               "fused(f32[4][5], f32) -> f32[5] of 4: multiply, exp, add, sum"
    end
  end

  test "containers, streams and captured tensors" do
    captured = Nx.backend_copy(x(), Nx.BinaryBackend)
    fun = fn %{a: a, b: {b, c}} -> {Nx.add(a, captured), %{d: Nx.multiply(b, c)}} end
    args = [%{a: x(), b: {x(), Nx.tensor(2.0)}}]
    profile = Profile.run(fun, args, stream: Mlx.Stream.new())
    assert_consistent(profile)
    {sum, %{d: product}} = profile.result
    {plain_sum, %{d: plain_product}} = plain(fun, args)
    assert_identical(sum, plain_sum)
    assert_identical(product, plain_product)
  end

  test "it runs on the stream that is given, or on that of the process" do
    test = self()

    fun = fn x ->
      Nx.Defn.Kernel.io_call(Nx.add(x, 1), fn _ -> send(test, Mlx.Stream.current()) end)
    end

    [given, around] = for _ <- 1..2, do: Mlx.Stream.new()

    Mlx.Stream.with_stream(around, fn ->
      profile(fun, [x()], warm_up: 0, stream: given)
      profile(fun, [x()], warm_up: 0)
    end)

    assert_received ^given
    assert_received ^around
    Mlx.Stream.close(given)
    assert_raise Mlx.Error, ~r/closed/, fn -> profile(fun, [x()], stream: given) end
  end

  test "arguments are there afterwards, donated or not" do
    x = %{x() | donatable?: true}
    profile(fn x -> Nx.add(x, 1) end, [x])
    assert Nx.to_number(Nx.sum(x)) == 190.0
  end

  test "lazy arguments are computed before" do
    slow =
      Enum.reduce(1..20, Nx.broadcast(x()[0][1], {300, 300}), fn _, m ->
        Nx.dot(m, m) |> Nx.min(1.0)
      end)

    profile = profile(fn x -> Nx.add(x, 1) end, [slow], warm_up: 0)
    assert [%{op: "add", own: own}] = profile.instructions
    assert own < profile.duration
  end

  test "a function that computes nothing" do
    profile = profile(fn x -> x end, [x()])
    assert {profile.instructions, profile.events} == {[], []}
    assert inspect(profile) =~ "0 instructions on #{Mlx.TestDevice.device()}"
  end

  test "what fails raises as otherwise, and leaves nothing behind" do
    huge = fn x -> Nx.add(Nx.broadcast(x, {100_000, 100_000, 100}), 1) end
    error = assert_raise Mlx.Error, fn -> profile(huge, [Nx.tensor(1.0)], warm_up: 0) end
    assert error.kind == :memory
    assert_consistent(profile(&Functions.chain/2, [x(), x()]))
    assert Process.get(Mlx.Profile.Recorder) == nil
  end

  test "options are checked" do
    assert_raise ArgumentError, ~r/:warm_up/, fn -> profile(&Nx.exp/1, [x()], warm_up: -1) end
    assert_raise ArgumentError, ~r/unknown options/, fn -> profile(&Nx.exp/1, [x()], frob: 1) end
    profile = profile(&Nx.exp/1, [x()])
    assert_raise ArgumentError, ~r/:sort/, fn -> Profile.to_table(profile, sort: :name) end
    assert_raise ArgumentError, ~r/:limit/, fn -> Profile.to_table(profile, limit: -1) end
    assert_raise ArgumentError, ~r/unknown keys/, fn -> Profile.to_table(profile, frob: 1) end
  end

  describe "the table" do
    setup do
      %{profile: profile(&Functions.loops/1, [x()])}
    end

    test "has a line for each instruction, the slowest first", %{profile: profile} do
      [_head | lines] = profile |> Profile.to_table() |> String.split("\n", trim: true)
      assert length(lines) == length(profile.instructions)
      times = for line <- lines, do: line |> String.trim() |> Float.parse() |> elem(0)
      assert times == Enum.sort(times, :desc)
    end

    test "in the order of the program, up to a limit", %{profile: profile} do
      table = Profile.to_table(profile, sort: :program, limit: 2)
      [_head, first, second, rest] = String.split(table, "\n", trim: true)

      assert [first, second]
             |> Enum.zip(profile.instructions)
             |> Enum.all?(fn {l, i} -> l =~ i.op end)

      assert rest =~ "#{length(profile.instructions) - 2} more"
    end

    test "says the way to what is inside", %{profile: profile} do
      assert Profile.to_table(profile) =~ ~r/ 5 +80  repeat\.body: multiply\(/

      assert inspect(profile) =~
               ~r/^#Mlx\.Profile<\n  \d+ instructions on #{Mlx.TestDevice.device()}; one by one .*>$/s
    end
  end

  describe "the trace" do
    test "is JSON that has each event once, nested in time" do
      profile = profile(&Functions.loops/1, [x()])
      trace = Jason.decode!(Profile.to_chrome_trace(profile))
      {metadata, events} = Enum.split_with(trace["traceEvents"], &(&1["ph"] == "M"))
      assert [%{"name" => "process_name", "args" => %{"name" => name}}] = metadata
      assert name =~ "loops/1 on #{Mlx.TestDevice.device()}"
      assert length(events) == length(profile.events)

      for {event, expected} <- Enum.zip(events, profile.events) do
        instruction = Enum.at(profile.instructions, expected.instruction)
        assert %{"ph" => "X", "pid" => 1, "tid" => 1, "args" => args} = event
        assert event["name"] == instruction.op
        assert_in_delta event["ts"] * 1000, expected.start, 1
        assert_in_delta event["dur"] * 1000, expected.duration, 1
        assert args["path"] == Enum.join(instruction.path, ".")
      end

      for %{"name" => "multiply", "args" => %{"path" => "repeat.body"}} = event <- events do
        assert Enum.any?(events, fn around ->
                 around["name"] == "repeat" and around["ts"] <= event["ts"] and
                   around["ts"] + around["dur"] >= event["ts"] + event["dur"]
               end)
      end
    end

    @tag :tmp_dir
    test "is saved to a file, or says why not", %{tmp_dir: folder} do
      profile = profile(&Nx.exp/1, [x()])
      path = Path.join(folder, "trace.json")
      assert Profile.save(profile, path) == :ok
      assert File.read!(path) == Profile.to_chrome_trace(profile)
      assert_raise File.Error, fn -> Profile.save(profile, Path.join(folder, "no/trace.json")) end
    end
  end
end
