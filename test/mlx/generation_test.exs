defmodule Mlx.GenerationTest do
  # Traces and telemetry are for all processes.
  use ExUnit.Case, async: false

  alias Mlx.Generation
  alias Mlx.Generation.Token

  doctest Mlx.Generation

  @vocabulary 50
  @defn_options [compiler: Mlx.Compiler]

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  # The next token is a sum over all tokens so far, weighted by their positions, so it shows
  # whether the cache has each of them at its place.
  defp forward(params, tokens, cache, position) do
    {batch, length} = tokens.shape
    cache = Mlx.Fast.update_cache(cache, Nx.new_axis(tokens, -1), position, axis: 1)
    room = Nx.axis_size(cache, 1)
    first = if is_integer(position), do: Nx.tensor(position), else: position
    first = if first.shape == {}, do: first, else: Nx.reshape(first, {batch, 1, 1})
    last = Nx.add(Nx.iota({1, length, 1}), first)
    places = Nx.iota({1, 1, room})
    seen = Nx.less_equal(places, last)
    worth = Nx.multiply(Nx.reshape(cache, {batch, 1, room}), Nx.add(places, 1))
    worth = Nx.broadcast(worth, {batch, length, room})
    sums = Nx.sum(Nx.multiply(seen, worth), axes: [-1], keep_axes: true)
    next = sums |> Nx.add(params) |> Nx.remainder(@vocabulary)
    # The others are the less likely, the further they are.
    distance = Nx.abs(Nx.subtract(Nx.iota({1, 1, @vocabulary}), next))
    {Nx.negate(distance) |> Nx.as_type(:f32), cache}
  end

  defp cache(batch, length), do: Nx.broadcast(Nx.tensor(0, type: :s32), {batch, length, 1})

  defp expected(prompt, count) do
    Enum.reduce(1..count, {prompt, []}, fn _, {all, new} ->
      sum = all |> Enum.with_index(1) |> Enum.map(fn {id, at} -> id * at end) |> Enum.sum()
      next = rem(sum + 3, @vocabulary)
      {all ++ [next], new ++ [next]}
    end)
    |> elem(1)
  end

  # On a GPU two steps are queued ahead if nothing is said.
  defp generator(opts \\ []) do
    opts = Keyword.merge([ahead: 1, defn_options: @defn_options], opts)
    Generation.new(&forward/4, Nx.tensor(3, type: :s32), &cache/2, opts)
  end

  defp prompt(length), do: for(at <- 1..length, do: rem(at * at * 7 + 1, @vocabulary))

  describe "the likeliest tokens" do
    test "are those of the model, for prompts of any length and caches that grow" do
      for length <- [1, 2, 3, 16, 17, 63, 64, 65, 130, 513, 700], chunk <- [512, 100] do
        prompt = prompt(length)
        result = Generation.generate(generator(prompt_chunk: chunk), prompt, max_tokens: 9)
        assert result == %{tokens: expected(prompt, 9), text: nil, finish: :length}
      end

      assert Generation.generate(generator(), [5], max_tokens: 200).tokens == expected([5], 200)
    end

    test "are the same for each row of a batch as alone" do
      prompts = for length <- [3, 70, 1, 20], do: prompt(length)
      results = Generation.generate(generator(), prompts, max_tokens: 80)
      assert Enum.map(results, & &1.tokens) == Enum.map(prompts, &expected(&1, 80))
      alike = for at <- 1..3, do: Enum.map(prompt(10), &rem(&1 + at, @vocabulary))
      results = Generation.generate(generator(), alike, max_tokens: 5)
      assert Enum.map(results, & &1.tokens) == Enum.map(alike, &expected(&1, 5))
      assert [%{tokens: [_]}] = Generation.generate(generator(), [prompt(4)], max_tokens: 1)
    end

    test "are the same with Nx's evaluator" do
      generator = generator(defn_options: [compiler: Nx.Defn.Evaluator])
      Nx.default_backend(Nx.BinaryBackend)
      generator = %{generator | params: Nx.tensor(3, type: :s32)}
      results = Generation.generate(generator, [[1, 2, 3], [4]], max_tokens: 5)
      assert Enum.map(results, & &1.tokens) == [expected([1, 2, 3], 5), expected([4], 5)]
    end
  end

  describe "drawn tokens" do
    test "follow from the key" do
      draw = fn key ->
        opts = [max_tokens: 30, temperature: 2.0, top_p: 0.9, key: Nx.Random.key(key)]
        Generation.generate(generator(), [[1, 2], [3]], opts)
      end

      assert draw.(1) == draw.(1)
      assert draw.(1) != draw.(2)
      refute Enum.map(draw.(1), & &1.tokens) == [expected([1, 2], 30), expected([3], 30)]
      # Without a key each is another.
      opts = [max_tokens: 30, temperature: 5.0]

      assert Generation.generate(generator(), [1], opts) !=
               Generation.generate(generator(), [1], opts)
    end

    test "are those of sample/3, step by step" do
      key = Nx.Random.key(7)
      sampling = [temperature: 3.0, top_k: 8, repetition_penalty: 1.5]
      prompt = [4, 9]
      opts = sampling ++ [max_tokens: 12, key: key, repetition_context: 4]
      %{tokens: tokens} = Generation.generate(generator(), prompt, opts)

      Enum.reduce(tokens, {prompt, key}, fn token, {all, key} ->
        {logits, _} = forward(Nx.tensor(3), Nx.tensor([all]), cache(1, 64), 0)
        # What is missing of the context is the first token again.
        past = Enum.take(List.duplicate(hd(prompt), 4) ++ all, -4)
        opts = sampling ++ [past: Nx.tensor([past])]
        {drawn, key} = Generation.sample(logits[[.., -1]], key, opts)
        assert Nx.to_list(drawn) == [token]
        {all ++ [token], key}
      end)
    end

    test "of the latest have a penalty, and those before them none" do
      # The model wants one token always, and the one beside it a little less.
      logits = Nx.tensor([[[0.0, 2.0, 1.9, 0.5]]])

      forward = fn logits, tokens, cache, _position ->
        {Nx.broadcast(logits, {1, Nx.axis_size(tokens, 1), 4}), cache}
      end

      generator = Generation.new(forward, logits, &cache/2, defn_options: @defn_options)
      opts = [max_tokens: 6, repetition_penalty: 1.5, repetition_context: 1]
      assert Generation.generate(generator, [0], opts).tokens == [1, 2, 1, 2, 1, 2]
      opts = Keyword.put(opts, :repetition_context, 2)
      assert [2 | _] = Generation.generate(generator, [1, 0], opts).tokens
    end
  end

  describe "a row ends" do
    test "with a stop token, while others go on" do
      [a, b] = [expected([1, 2, 3], 10), expected([4], 10)]
      stop = Enum.find(a, &(&1 not in b))
      count = Enum.find_index(a, &(&1 == stop)) + 1
      assert count < 10

      [first, second] =
        Generation.generate(generator(), [[1, 2, 3], [4]], max_tokens: 10, stop_tokens: [stop])

      assert first == %{tokens: Enum.take(a, count), text: nil, finish: :stop_token}
      assert second == %{tokens: b, text: nil, finish: :length}
    end

    test "with a stop string, before which the text ends" do
      generator = generator(decode: fn ids -> Enum.map_join(ids, &"<#{&1}>") end)
      tokens = expected([1, 2, 3], 10)
      [_, _, third, fourth | _] = tokens
      stop = "#{third}><#{fourth}"
      result = Generation.generate(generator, [1, 2, 3], max_tokens: 10, stop_strings: [stop])
      assert result.tokens == Enum.take(tokens, 4)
      assert result.finish == :stop_string
      assert result.text == (tokens |> Enum.take(2) |> Enum.map_join(&"<#{&1}>")) <> "<"
      result = Generation.generate(generator, [1, 2, 3], max_tokens: 10, stop_strings: ["<x"])
      assert result.text == Enum.map_join(tokens, &"<#{&1}>")

      assert_raise ArgumentError, fn ->
        Generation.stream(generator(), [1], stop_strings: ["x"])
      end
    end

    test "where the model does" do
      generator = generator(max_length: 20)
      assert Generation.generate(generator, prompt(15)).tokens == expected(prompt(15), 6)
      assert Generation.generate(generator, prompt(20)).tokens == expected(prompt(20), 1)
      assert_raise ArgumentError, fn -> Generation.stream(generator, prompt(21)) end
    end
  end

  # The calls that give the device work, and those that wait for it.
  defp traced(fun) do
    calls = [{Mlx.Native, :program_run, 4}, {Mlx.Native, :tensor_read, 2}]
    for call <- calls, do: :erlang.trace_pattern(call, true, [:global])

    task =
      Task.async(fn ->
        receive do: (:go -> fun.())
      end)

    :erlang.trace(task.pid, true, [:call])
    send(task.pid, :go)
    Task.await(task, :infinity)
    for call <- calls, do: :erlang.trace_pattern(call, false, [:global])
    received([])
  end

  defp received(calls) do
    receive do
      {:trace, _pid, :call, {Mlx.Native, :program_run, _}} -> received([:run | calls])
      {:trace, _pid, :call, {Mlx.Native, :tensor_read, _}} -> received([:read | calls])
    after
      100 -> Enum.reverse(calls)
    end
  end

  describe "the device" do
    test "has the next step before a token is read, and no more than that" do
      Generation.generate(generator(), [5], max_tokens: 5)
      # A cache, and then the steps, of which each one's token is read after the next is queued.
      calls = traced(fn -> Generation.generate(generator(), [5], max_tokens: 5) end)
      assert calls == [:run, :run] ++ List.flatten(List.duplicate([:run, :read], 4)) ++ [:read]
    end

    test "has as many steps before a token is read as it is told to" do
      generator = generator(ahead: 2)
      tokens = Generation.generate(generator, [5], max_tokens: 5)
      assert tokens == Generation.generate(generator(), [5], max_tokens: 5)
      calls = traced(fn -> Generation.generate(generator, [5], max_tokens: 5) end)

      # The first token has one step behind it, so that it comes early. The others are asked for
      # before the last step is queued, and waited for after it.
      assert calls ==
               [:run, :run, :run, :read, :run, :read, :run, :read, :run, :read, :read]
    end

    test "gets no more work when nobody takes tokens" do
      Generation.generate(generator(), [5], max_tokens: 3)
      calls = traced(fn -> generator() |> Generation.stream([5]) |> Enum.take(2) end)
      assert calls == [:run, :run, :run, :read, :run, :read]
      assert traced(fn -> Generation.stream(generator(), [5]) end) == []
    end
  end

  describe "messages" do
    test "bring the tokens, and then what it took" do
      run = Generation.start(generator(), [[1, 2], [3]], max_tokens: 4)
      ref = run.ref
      assert_receive {Generation, ^ref, {:done, summary}}, 60_000
      assert %{tokens: 8, tokens_per_second: rate, time_to_first_token: first} = summary
      assert rate > 0 and first > 0 and summary.duration >= first

      assert tokens(ref) ==
               Enum.zip_with(expected([1, 2], 4), expected([3], 4), &[&1, &2]) |> List.flatten()
    end

    defp tokens(ref) do
      receive do
        {Generation, ^ref, {:token, %Token{id: id}}} -> [id | tokens(ref)]
      after
        0 -> []
      end
    end

    test "end after cancel/1" do
      run = Generation.start(generator(), [1], max_tokens: 1_000_000)
      ref = run.ref
      assert_receive {Generation, ^ref, {:token, _}}, 60_000
      assert Generation.cancel(run) == :ok
      assert_received {Generation, ^ref, {:cancelled, %{tokens: count}}}
      assert length(tokens(ref)) + 1 == count
      refute Process.alive?(run.pid)
      refute_receive {Generation, ^ref, _}, 50
      assert Generation.cancel(run) == :ok
    end

    test "end with the process that asked for them" do
      test = self()

      owner =
        spawn(fn ->
          run = Generation.start(generator(), [1], max_tokens: 1_000_000)
          send(test, {:run, run})
          Process.sleep(:infinity)
        end)

      assert_receive {:run, run}, 60_000
      monitor = Process.monitor(run.pid)
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, :process, _pid, :normal}, 60_000
    end

    test "come from the stream that the caller is in" do
      stream = Mlx.Stream.new()
      generator = generator()
      start = fn -> Generation.start(generator, [1, 2], max_tokens: 3) end
      %{ref: ref} = Mlx.Stream.with_stream(stream, start)
      assert_receive {Generation, ^ref, {:done, _}}, 60_000
      assert tokens(ref) == expected([1, 2], 3)
      Mlx.Stream.close(stream)
      %{ref: ref} = Mlx.Stream.with_stream(stream, start)
      assert_receive {Generation, ^ref, {:error, %Mlx.Error{kind: :device} = error}}, 60_000
      assert Exception.message(error) =~ "the stream is closed"
    end

    test "say what failed" do
      forward = fn _params, _tokens, _cache, _position -> raise "no model" end
      generator = Generation.new(forward, {}, &cache/2, defn_options: @defn_options)
      %{ref: ref} = Generation.start(generator, [1])
      assert_receive {Generation, ^ref, {:error, %RuntimeError{message: "no model"}}}, 60_000
      assert_raise RuntimeError, fn -> Generation.generate(generator, [1]) end
    end
  end

  test "telemetry tells when it starts, of the first token and of all" do
    test = self()
    events = for name <- [:start, :first_token, :stop, :exception], do: [:mlx, :generation, name]
    :telemetry.attach_many("generation", events, &__MODULE__.forward_event/4, test)
    on_exit(fn -> :telemetry.detach("generation") end)
    Generation.generate(generator(), [[1, 2, 3], [4, 5]], max_tokens: 6)
    metadata = %{rows: 2, prompt_tokens: 5}
    assert_received {[_, _, :start], %{system_time: _}, ^metadata}

    assert_received {[_, _, :first_token], %{duration: first, prompt_tokens_per_second: rate},
                     ^metadata}

    assert_received {[_, _, :stop], took, ^metadata}
    assert took.tokens == 12
    assert took.time_to_first_token == first
    assert took.prompt_tokens_per_second == rate
    assert_in_delta rate * first / System.convert_time_unit(1, :second, :native), 5, 0.001
    assert took.tokens_per_second > 0
    generator() |> Generation.stream([1]) |> Enum.take(2)
    assert_received {[_, _, :stop], %{tokens: 2}, _}
    forward = fn _params, _tokens, _cache, _position -> raise "no model" end
    generator = Generation.new(forward, {}, &cache/2, defn_options: @defn_options)
    catch_error(Generation.generate(generator, [1]))

    assert_received {[_, _, :exception], %{duration: _},
                     %{kind: :error, reason: %RuntimeError{}, stacktrace: _}}
  end

  test "the default logger has a line for each" do
    Mlx.Telemetry.attach_default_logger(level: :info, events: [:generation])
    on_exit(&Mlx.Telemetry.detach_default_logger/0)

    log =
      ExUnit.CaptureLog.capture_log(fn ->
        Generation.generate(generator(), [[1, 2], [3]], max_tokens: 2)
      end)

    assert log =~ ~r/mlx.generation took \d+ µs: 2 rows, 3 tokens of prompts, [\d.]+ per second/
    assert log =~ ~r/4 tokens, [\d.]+ per second, the first after \d+ µs/
  end

  def forward_event(event, measurements, metadata, test) do
    if self() == test, do: send(test, {event, measurements, metadata})
  end

  test "what is none of the options or no prompt is refused at once" do
    generator = generator()

    for prompt <- [[], [[]], [-1], ["a"], "a", [[1], []], [1, [2]], nil] do
      assert_raise ArgumentError, fn -> Generation.stream(generator, prompt) end
    end

    for wrong <- [
          [max_tokens: 0],
          [key: 1],
          [stop_tokens: [-1]],
          [stop_tokens: 5],
          [repetition_context: 0],
          [temperature: -1],
          [top_k: 0],
          [other: 1]
        ] do
      assert_raise ArgumentError, fn -> Generation.stream(generator, [1], wrong) end
    end

    for wrong <- [[max_length: 0], [prompt_chunk: 0], [ahead: 0], [other: 1]] do
      assert_raise ArgumentError, fn -> generator(wrong) end
    end
  end
end
